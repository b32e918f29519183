"""The commands as calls: what each is asked, its plan, and a run that leaves a folder."""
