"""Many runs from one description, the load that each setting bears, and the hardware that answers a question best.

What a run *is* is not known here: settings go to a function that returns the run's result. So whatever that function
learns to honour can be an axis.
"""
