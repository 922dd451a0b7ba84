"""The fault sweep: which calls of a test fail, in which ways, and whether what the test then does is right.

The rule: it knows no pytest, and starts nothing. Values come in and go out; a `SweepTrial` alone is changed, by
threads of the gateway too.

* `calls`: the name of a call, by which it is known from run to run.
* `faults`: the ways in which a call fails.
* `cells`: a cell of the matrix, its name, and which cells a test has.
* `settings`: the arguments of `@pytest.mark.egress_sweep`.
* `outages`: what fails before there is a call: a dial, or the look-up of a name.
* `trial`: one run of a test, whose calls are counted, and of which one fails.
* `verdict`: what a run under a fault means.
* `matrix`: the lines of a matrix.
* `table`: a matrix as a JSON value, for a page.
"""
