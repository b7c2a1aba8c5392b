"""Pure renderers: one plan or report in, text, JSON, YAML, metrics, Events or a page out."""
