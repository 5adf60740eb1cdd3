"""The joined log, for years: in objects of a bucket or in files of a folder, from which evaluations read it again."""
