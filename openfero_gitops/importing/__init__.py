"""Convert the definitions of another tool to a repository of operarios. Pure.

`manifests` reads objects, `openfero` sorts them into files, `differences` says what each definition
means in another way here. Reading a cluster and writing files is in `commands.importing`.
"""
