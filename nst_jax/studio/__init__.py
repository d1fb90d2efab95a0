"""The studio: a page on which people make pictures, its queue of jobs, and the processes that do the work."""
