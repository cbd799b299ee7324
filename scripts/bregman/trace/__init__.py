"""What bregman-trace puts around a sweep: the sweep file it writes, what that will cost, and the answer on the terminal."""
