"""What is wrong with a fleet and how to mend it: facts are gathered at the edge, and every check is a pure function of them."""
