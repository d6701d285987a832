"""What every reader does with what it was not made for: ``make fuzz``, and a short run in the tests."""
