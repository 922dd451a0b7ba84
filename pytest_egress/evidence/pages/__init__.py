"""The HTML pages: `timeline.html` of a test and `index.html` of a run, each one file that needs no network.

The rule: what a container has sent is data in a page and never a part of it. Templates, styles and scripts lie beside.

* `destinations`: what each test did to each destination, for the index.
* `filling`: a template with its styles, scripts and data, and the policy that lets nothing else run.
* `index`: the page of a run.
* `timeline`: the page of a test, of its lines.
"""
