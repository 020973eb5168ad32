"""A small application with tenants, and one leak that is chosen on the command line."""
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LEAK = sys.argv[1]
TOKENS = {"Bearer token-of-acme": "acme", "Bearer token-of-globex": "globex"}
NOTES = {"acme": {}, "globex": {}}
CACHE = {}
TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}
BODY = {"content": {"application/json": {"schema": TEXT}}}
PARAMETERS = [{"name": "tenant", "in": "path", "required": True, "schema": {"type": "string"}}]
NOTE = PARAMETERS + [{"name": "note", "in": "path", "required": True, "schema": {"type": "integer"}}]
DOCUMENT = {
    "openapi": "3.1.0",
    "info": {"title": "Notes", "version": "1"},
    "security": [{"token": []}],
    "paths": {
        "/t/{tenant}/notes": {"parameters": PARAMETERS, "get": {}, "post": {"requestBody": BODY}},
        "/t/{tenant}/notes/{note}": {"parameters": NOTE, "get": {}, "put": {"requestBody": BODY}, "delete": {}},
        "/t/{tenant}/count": {"parameters": PARAMETERS, "get": {}},
        "/openapi.json": {"get": {"security": []}},
    },
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One packet for head and body.
    wbufsize = 65536

    def log_message(self, *_):
        pass

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("cache-control", "private, no-store")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handle_request(self):
        length = int(self.headers.get("content-length") or 0)
        try:
            body = json.loads(self.rfile.read(length) or "null")
        except ValueError:
            return self.answer(400, {"code": "not_json"})
        path = self.path.split("?")[0]
        if path == "/openapi.json":
            return self.answer(200, DOCUMENT)
        parts = path.strip("/").split("/")
        caller = TOKENS.get(self.headers.get("authorization"))
        if caller is None:
            return self.answer(401, {"code": "unauthenticated"})
        tenant = parts[1] if len(parts) > 2 and parts[0] == "t" else None
        if LEAK == "existence" and tenant in NOTES and tenant != caller:
            return self.answer(403, {"code": "forbidden"})
        if tenant not in NOTES or (tenant != caller and LEAK != "membership"):
            return self.answer(404, {"code": "not_found"})
        if LEAK == "override" and self.headers.get("x-tenant-id") in NOTES:
            tenant = self.headers["x-tenant-id"]
        self.route(tenant, parts[2:], body)

    def route(self, tenant, parts, body):
        notes = NOTES[tenant]
        method = self.command
        if method in ("POST", "PUT") and not (isinstance(body, dict) and isinstance(body.get("text"), str)):
            return self.answer(422, {"code": "invalid"})
        if parts == ["count"] and method == "GET":
            counted = NOTES if LEAK == "count" else {tenant: notes}
            return self.answer(200, {"count": sum(len(own) for own in counted.values())})
        if parts == ["notes"] and method == "GET":
            listed = [{"id": key, "text": text} for key, text in notes.items()]
            if LEAK == "cache":
                listed = CACHE.setdefault("notes", listed)
            return self.answer(200, listed)
        if parts == ["notes"] and method == "POST":
            CACHE.clear()
            key = max(notes, default=0) + 1
            notes[key] = body["text"]
            return self.answer(201, {"id": key, "text": body["text"]})
        if len(parts) == 2 and parts[0] == "notes" and parts[1].isdigit():
            return self.row(notes, int(parts[1]), body)
        self.answer(404, {"code": "not_found"})

    def row(self, notes, key, body):
        if LEAK == "ids" and key not in notes:
            notes = next((own for own in NOTES.values() if key in own), notes)
        if key not in notes:
            return self.answer(404, {"code": "not_found"})
        if self.command == "PUT":
            notes[key] = body["text"]
        if self.command == "DELETE":
            return self.answer(200, {"deleted": notes.pop(key)})
        self.answer(200, {"id": key, "text": notes[key]})

    do_GET = do_POST = do_PUT = do_DELETE = handle_request


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
server.serve_forever()
