// TimescaleDB on a loopback TCP port: PGlite (PostgreSQL compiled to WebAssembly) behind PostgreSQL's wire protocol.
//
//   node timescale.mjs <node_modules> <data folder> <port>
//
// PGlite has one session.  Each connection here has it to itself from its first message until the end of its
// transaction; the others wait.  Like behind a connection pooler, what outlives a transaction is shared by all.

import net from "node:net";
import path from "node:path";
import { pathToFileURL } from "node:url";

const HOST = "127.0.0.1";
const PROTOCOL_3 = 196608;
const SSL_REQUEST = 80877103;
const GSS_REQUEST = 80877104;
const COPY_IN = /^\s*copy\b[^;]*\bfrom\s+stdin\b/i;
const BINARY = /\bformat\s*'?binary\b|\bwith\s+binary\b|\bstdin\s+binary\b/i;
const EXTENDED = "PBDECF";

const [modules, dataDir, port] = process.argv.slice(2);
const db = await openDatabase(path.join(modules, "@unni-craftsman", "pglite", "dist"));
const parameters = await readParameters();
let turn = Promise.resolve(); // settled when the session is free
net.createServer({ noDelay: true }, serve).listen(Number(port), HOST);
for (const signal of ["SIGTERM", "SIGINT"]) {
  process.once(signal, () => turn.then(() => db.close()).finally(() => process.exit(0)));
}

async function openDatabase(dist) {
  const { PGlite } = await import(pathToFileURL(path.join(dist, "index.js")));
  const { timescaledb } = await import(pathToFileURL(path.join(dist, "timescaledb", "index.js")));
  const opened = await PGlite.create({ dataDir, extensions: { timescaledb } });
  // A later start would load it with the first of its functions only, too late for rows that come before.
  await opened.exec("CREATE EXTENSION IF NOT EXISTS timescaledb; LOAD 'timescaledb'");
  await opened.exec("SET client_min_messages = notice; SET timezone = 'UTC'");
  return opened;
}

async function readParameters() {
  const names = ["server_version", "server_encoding", "client_encoding", "DateStyle", "TimeZone"];
  const always = { integer_datetimes: "on", standard_conforming_strings: "on" };
  const shown = {};
  for (const name of names) [shown[name]] = Object.values((await db.query(`SHOW ${name}`)).rows[0]);
  return { ...shown, ...always };
}

/** Waits for the session and gives the function that frees it. */
async function takeTurn() {
  let free;
  const before = turn;
  turn = new Promise((resolve) => (free = resolve));
  await before;
  return free;
}

function message(type, ...parts) {
  const body = Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(`${part}\0`) : part)));
  const head = Buffer.alloc(5);
  head.write(type);
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

function int32(value) {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
}

/** Yields [type, body, whole message] of each message in `bytes`. */
function* messagesIn(bytes) {
  for (let at = 0; at < bytes.length; ) {
    const end = at + 1 + bytes.readInt32BE(at + 1);
    yield [String.fromCharCode(bytes[at]), bytes.subarray(at + 5, end), bytes.subarray(at, end)];
    at = end;
  }
}

/** Bytes of a socket, in the pieces that are asked for; null at its end. */
class Reader {
  constructor(socket) {
    this.chunks = socket[Symbol.asyncIterator]();
    this.buffer = Buffer.alloc(0);
  }

  async take(length) {
    const pieces = [this.buffer];
    for (let have = this.buffer.length; have < length; ) {
      const { value, done } = await this.chunks.next();
      if (done) return null;
      pieces.push(value);
      have += value.length;
    }
    const all = pieces.length === 1 ? this.buffer : Buffer.concat(pieces);
    this.buffer = all.subarray(length);
    return all.subarray(0, length);
  }

  async message() {
    const head = await this.take(5);
    const body = head && (await this.take(head.readInt32BE(1) - 4));
    return body && [String.fromCharCode(head[0]), body, Buffer.concat([head, body])];
  }
}

async function serve(socket) {
  socket.on("error", () => socket.destroy()); // a client that vanished
  const reader = new Reader(socket);
  const session = new Session(socket);
  try {
    if (!(await greet(reader, socket))) return;
    for (let next; (next = await reader.message()) && next[0] !== "X"; ) await session.handle(...next);
  } catch (error) {
    console.error(error);
  } finally {
    await session.close();
    socket.end();
  }
}

/** The opening exchange; everybody on loopback is trusted. */
async function greet(reader, socket) {
  for (;;) {
    const length = await reader.take(4);
    const body = length && (await reader.take(length.readInt32BE() - 4));
    if (!body) return false;
    const code = body.readInt32BE();
    if (code === SSL_REQUEST || code === GSS_REQUEST) socket.write("N");
    else if (code !== PROTOCOL_3) return false; // a cancel request: one session cannot be told while it works
    else break;
  }
  const told = Object.entries(parameters).map(([name, value]) => message("S", name, value));
  const key = message("K", int32(process.pid), int32(0));
  socket.write(Buffer.concat([message("R", int32(0)), ...told, key, message("Z", Buffer.from("I"))]));
  return true;
}

class Session {
  constructor(socket) {
    this.socket = socket;
    this.free = null; // while it is this connection's turn
    this.copying = null; // { sql, chunks } between COPY … FROM STDIN and its end
    this.skipping = false; // after an error in the extended protocol, until Sync
  }

  async handle(type, body, whole) {
    if (this.copying) return this.copyIn(type, body);
    if (type === "S") this.skipping = false;
    if (this.skipping || type === "H") return; // Flush: everything is sent at once anyway
    this.free ??= await takeTurn();
    const sql = type === "Q" ? body.toString("utf8", 0, body.length - 1) : "";
    if (COPY_IN.test(sql)) {
      this.copying = { sql, chunks: [] };
      this.socket.write(message("G", Buffer.from([BINARY.test(sql) ? 1 : 0, 0, 0])));
    } else {
      this.run(whole, EXTENDED.includes(type));
    }
  }

  /** PGlite has no way to read COPY data from a client: it is collected and read from a device instead. */
  async copyIn(type, body) {
    const { sql, chunks } = this.copying;
    if (type === "d") chunks.push(body);
    if (type !== "c" && type !== "f") return;
    this.copying = null;
    if (type === "f") {
      const reason = body.toString("utf8", 0, body.length - 1).replaceAll("'", "''").replaceAll("$", "");
      const raise = `RAISE query_canceled USING MESSAGE = 'COPY from stdin failed: ${reason}'`;
      return this.run(message("Q", `DO $do$ BEGIN ${raise}; END $do$`)); // fails the transaction as a failed COPY does
    }
    await db._handleBlob(new Blob(chunks));
    this.run(message("Q", sql.replace(/\bfrom\s+stdin\b/i, "FROM '/dev/blob'")));
    await db._handleBlob(undefined);
  }

  run(request, extended = false) {
    const answer = Buffer.from(db.execProtocolRawSync(request)); // a copy: PGlite uses its buffer again
    this.socket.write(answer);
    for (const [type, body] of messagesIn(answer)) {
      if (type === "E" && extended) this.skipping = true;
      if (type === "Z" && body.toString() === "I") this.release();
    }
  }

  release() {
    this.free?.();
    this.free = null;
  }

  /** Leaves nothing of this connection behind for the next. */
  async close() {
    this.free ??= await takeTurn();
    for (const sql of ["ROLLBACK", "DEALLOCATE ALL", "DISCARD TEMP"]) db.execProtocolRawSync(message("Q", sql));
    this.release();
  }
}
