"""What can be trained: the contract of a task, and one file for each."""
