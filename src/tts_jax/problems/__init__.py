"""What is learnt, and the risk that training lowers."""
