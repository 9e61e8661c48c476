"""Files on disk -> records: images, their captions, sizes and buckets."""
