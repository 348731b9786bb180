"""Verify a zoo: read every file, trust none.

`verify` goes through a zoo. `listing` lists its files, `members` checks one member's files against its records, and
`relations` compares members and configs with each other. `plan` compares records with the recipe, `tables` the tables
with the records, and `evaluations` a member's metrics with its images. Everything wrong becomes a `problems.Problem`,
and the verification continues.
"""
