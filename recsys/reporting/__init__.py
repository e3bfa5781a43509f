"""The page of a run for people: `report.html`, from the files that the jobs have written."""
