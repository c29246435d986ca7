/** A local HTTP server with the faults of real ones: cuts, wrong bytes, error codes; with ranges as RFC 9110 has them. */
import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface ServedFile {
  readonly body: Buffer | string;
  readonly contentType?: string;
  /** For each request in turn; after the last one the file is served well. */
  readonly faults?: ('cut' | 'wrong-byte' | 'ignore-range' | number)[];
  /** Refused with 401 unless the request carries it. */
  readonly authorization?: string;
  /** Answered with 302 to this address instead. */
  readonly redirect?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface FileServer extends AsyncDisposable {
  readonly url: string;
  readonly files: Map<string, ServedFile>;
  /** `GET /path` or `GET /path bytes=5-`, in order. */
  readonly requests: string[];
  /** Authorization headers of those that had one, in order. */
  readonly authorizations: string[];
}

function answer(file: ServedFile, request: IncomingMessage, response: ServerResponse): void {
  const fault = file.faults?.shift();
  if (file.authorization !== undefined && request.headers.authorization !== file.authorization) {
    response.writeHead(401).end();
    return;
  }
  if (typeof fault === 'number') {
    response.writeHead(fault).end();
    return;
  }
  for (const [name, value] of Object.entries(file.headers ?? {})) response.setHeader(name, value);
  if (file.redirect !== undefined) {
    response.writeHead(302, { location: file.redirect }).end();
    return;
  }
  let body = Buffer.from(file.body);
  if (fault === 'wrong-byte') {
    body = Buffer.from(body);
    body[body.length - 1] = (body[body.length - 1] ?? 0) ^ 1;
  }
  const start = fault === 'ignore-range' ? 0 : Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
  if (start >= body.length && start > 0) {
    response.writeHead(416, { 'content-range': `bytes */${body.length}` }).end();
    return;
  }
  const rest = body.subarray(start);
  response.writeHead(start > 0 ? 206 : 200, {
    'content-length': rest.length,
    'content-type': file.contentType ?? 'application/octet-stream',
    ...(start > 0 ? { 'content-range': `bytes ${start}-${body.length - 1}/${body.length}` } : {}),
  });
  if (fault === 'cut') response.write(rest.subarray(0, Math.ceil(rest.length / 2)), () => setTimeout(() => response.destroy(), 100));
  else response.end(rest);
}

export async function startFileServer(): Promise<FileServer> {
  const files = new Map<string, ServedFile>();
  const requests: string[] = [];
  const authorizations: string[] = [];
  const server = createServer((request, response) => {
    const path = decodeURIComponent(request.url ?? '');
    requests.push(`${request.method} ${path}${request.headers.range === undefined ? '' : ` ${request.headers.range}`}`);
    if (request.headers.authorization !== undefined) authorizations.push(request.headers.authorization);
    const file = files.get(path);
    if (file === undefined) response.writeHead(404).end();
    else answer(file, request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    files,
    requests,
    authorizations,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
