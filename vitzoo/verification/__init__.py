"""Is a zoo what it says it is? Every file looked at, nothing in it believed.

`verify` goes through a zoo: `listing` says which files it has, `members` holds one member's files against its records,
`configs` the configs against records, recipe and each other, `relations` members against each other, `tables` the
tables against the records, and `evaluations` a member's figures against its images. What is wrong becomes a
`problems.Problem`, and the search goes on.
"""
