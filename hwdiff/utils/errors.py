"""The one exception that hwdiff raises for anything a user can put right."""


class HwdiffError(Exception):
    """Bad input: the message names the file or argument, says what was found and what to do. The CLI prints it as one line."""
