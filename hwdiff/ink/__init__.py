"""A line of pen strokes: what it is, how it is drawn, and the files that it is read from and written to.

Offsets are in standard deviations of the line, y upwards.
"""

from hwdiff.utils.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "ink": ["Ink"],
        "plot": ["save_figure", "plot_inks", "draw_coloured"],
    },
)
