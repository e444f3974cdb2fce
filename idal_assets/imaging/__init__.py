"""Brain-tumour cases as they come from disk: layouts, conventions, verification and the phantom."""
