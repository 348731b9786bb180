"""Publish a zoo folder as two Hub repos: a model repo with the members, and a dataset repo with the tables.

`plan` lists every file of both repos from the folder alone, and `privacy` searches the texts. `push` sends the members'
files in commits of some hundred, then the cards, the tables, zoo.json and manifest.json in one closing commit. Readers
list only the files that the manifest names, so nobody ever sees half a zoo.

`checks` holds the refusals before an upload, `remote` the requests to one repo, and `follow` publishes beside training.
"""
