"""Tabs of the app, one file each. Nothing here touches the database directly."""
