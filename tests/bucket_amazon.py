"""What `bucket_server` says to those who speak Amazon's language, which s3fs does."""

import re
from urllib.parse import unquote
from xml.sax.saxutils import escape

BUCKET = "bucket"


class Amazon:
    """A part of the server's handler."""

    def amazon(self, name, key):
        bucket = self.bucket
        if name != BUCKET:
            return self.xml(404, "<Error><Code>NoSuchBucket</Code><Message>no such bucket</Message></Error>")
        match self.command:
            case "GET" if not key:
                names, folders = bucket.listing(self.query.get("prefix", ""), self.query.get("delimiter", ""))
                entries = "".join(
                    f"<Contents><Key>{escape(n)}</Key><Size>{len(bucket.objects[n])}</Size><ETag>&quot;"
                    f"{bucket.generations[n]}&quot;</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                    "<StorageClass>STANDARD</StorageClass></Contents>"
                    for n in names
                )
                inner = "".join(f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>" for f in folders)
                about = f"<Name>{BUCKET}</Name><IsTruncated>false</IsTruncated><KeyCount>{len(names)}</KeyCount>"
                return self.xml(200, f"<ListBucketResult>{about}{entries}{inner}</ListBucketResult>")
            case "HEAD" if not key:
                return self.answer(200)
            case "GET" | "HEAD":
                return (
                    self.send(key) if key in bucket.objects else self.xml(404, "<Error><Code>NoSuchKey</Code></Error>")
                )
            case "PUT" if source := self.headers.get("x-amz-copy-source"):
                source = unquote(source).removeprefix("/").partition("/")[2].partition("?")[0]
                if source not in bucket.objects:
                    return self.xml(404, "<Error><Code>NoSuchKey</Code></Error>")
                bucket.put(key, bucket.objects[source])
                return self.xml(200, "<CopyObjectResult><ETag>&quot;1&quot;</ETag></CopyObjectResult>")
            case "PUT" if key:
                bucket.put(key, self.body)
                return self.answer(200, b"", {"ETag": '"1"'})
            case "DELETE":
                bucket.delete(key)
                return self.answer(204)
            case "POST" if "delete" in self.query:
                for found in re.findall("<Key>(.*?)</Key>", self.body.decode()):
                    bucket.delete(found)
                return self.xml(200, "<DeleteResult></DeleteResult>")
        return self.fail(501, "not spoken here")

    def xml(self, code, text):
        body = f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode()
        return self.answer(code, body, {"Content-Type": "application/xml"})
