"""The evidence of a run: what people look at, keep, review and enforce.

The rule: the lines of `ledger.jsonl` are the source, and nothing is shown that has not passed the redactor. Nothing is
written unless it is asked for.

* `destinations`: what the entries of a run say about the destinations of its images, for `egress.lock`.
* `lock`: the reviewed destinations, as the file `egress.lock` lists them.
* `pages`: the HTML pages of a test and of a run.
* `policies`: a lock as the rules of those who enforce them: Kubernetes, Cilium, harden-runner, squid, CycloneDX.
* `bodies`: bodies without their secrets, within limits.
* `encoder`: an entry of the ledger as a line.
* `facts`: what a line says beside the fields of its entry.
* `folder`: the folder of a report, and what is removed from it again.
* `har`: the HTTP of a test as HAR 1.2.
* `later`: which folders of a report are written again, and by which process.
* `lines`: a value as one line of JSON.
* `rewriting`: the files of a test without secrets that became known after they were written.
* `sealing`: notes that the processes of one run alone can read.
* `summary`: why tests failed, as Markdown for a job's page.
* `writing`: the files of one test, one entry after the other.
"""
