"""A zoo folder becomes two Hub repos: the weights with their records, and the tables.

`plan` says what is published, from the folder alone; `privacy` what never is; `push` brings the repos there in bounded
commits; `remote` is one repo, and the only module here that touches the network; `progress` shows it.
"""
