"""From voxel counts to decisions: scores, matrix, clusters, ranking, removal sets, database. No images here."""
