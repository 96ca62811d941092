"""What an edit is: actions, edit decision lists, dynamics, dense reward."""
