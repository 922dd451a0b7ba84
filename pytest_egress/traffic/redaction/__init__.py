"""What hides secrets in all that is shown: verdicts, reports, logs in them, messages, and our own refusals.

The rule: `redactor` alone decides what is hidden. Secrets are hidden when a text is made to be shown, before it is cut,
and never in what is kept. Every function takes time linear in its input.

* `redactor`: `Redactor`, and how a value comes by that of its run.
* `declared`: `Redaction`, what a suite declares by the fixture `egress_redaction`.
* `index`: the search for many texts at once.
* `logins`: the logins of protocols that are no HTTP, such as AUTH of Redis.
* `names`: the names that say that their value is a secret.
* `shapes`: secrets that are known by their form, such as the URL of a webhook.
* `values`: known values, in every form in which a program writes them.
* `variables`: the secrets among the variables of a container.
"""
