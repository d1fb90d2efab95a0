"""What is minimized: the sum of the terms, whole, by windows or over devices, and the weight of each."""
