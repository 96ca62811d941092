"""The app in which people listen, vote, train and promote."""
