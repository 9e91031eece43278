"""Strangers' notebooks, graded without trust: assignments made, submissions run behind walls and scored."""
