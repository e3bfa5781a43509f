"""The sections of the page, a subject a module: functions of what was found."""
