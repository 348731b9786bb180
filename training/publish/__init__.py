"""A zoo folder becomes two Hub repos: the weights with their records, and the tables.

`plan` says what is published, from the folder alone: `members` of each member, of `files` that are no links; `privacy`
what never is; `checks` and `soundness` what is refused before anything is sent. `push` brings the repos there, in the
commits that `commits` plans after a `look`; `remote` is one repo, and the only module here that touches the network;
`progress` shows it.

Beside training, `ready` asks beforehand what would be refused, and `beside` publishes again and again what is finished,
without reading again what it `verified`; `talk` is what it is told and tells (`training.population.publisher`).
"""
