// Prints each request as Node's parser reads it.
import { createServer } from "node:http";

const server = createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const { method, url: path } = request;
    const body = Buffer.concat(chunks).toString("latin1");
    const told = JSON.stringify({ method, path, body: escape(body) });
    process.stdout.write(`request ${told}\n`);
    response.end(path);
  });
});

// As Rust's escape_ascii writes it.
function escape(text) {
  return text.replace(/\\/g, "\\\\").replace(/\r/g, "\\r").replace(/\n/g, "\\n").replace(/"/g, '\\"');
}

server.listen(0, "127.0.0.1", () => {
  process.stdout.write(`listening on 127.0.0.1:${server.address().port}\n`);
});
process.stdin.on("end", () => process.exit()).resume();
