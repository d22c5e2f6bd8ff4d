"""The one exception that hwdiff raises for anything a user can put right."""


class HwdiffError(Exception):
    """Bad input. The message names the file or argument, what was found and what to do.

    The CLI prints it as one line.
    """
