"""From voxel counts to decisions: scores, the matrix, clusters, ranking, removal sets, the database. No images here."""
