"""What a profile says, and the smallest edit that helps. Pure: opens no file, learns no time."""
