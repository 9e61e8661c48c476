"""What a network is: small modules beside layers of a frozen model, and the files they are kept in."""
