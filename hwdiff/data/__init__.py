"""From archives to batches: readers, stroke preprocessing, line images, the tokenizer and the dataset on disk."""
