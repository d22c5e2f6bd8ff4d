"""From archives to batches (section 5.1 of Luhman & Luhman 2020): the IAM database or the built-in writers,
the dataset on disk, style features, the tokenizer, and batches of tensors.
"""

from hwdiff.utils.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "preparation": ["prepare"],
        "dataset": ["Dataset", "style_lines"],
        "style_features": ["StyleFeatures"],
        "batches": ["Lines", "Batch"],
    },
)
