/** Finding out before anything starts that a port is taken, to say so in one message. */
import { createServer } from 'node:net';
import { StillhouseError } from '../contracts/errors.ts';

export interface PortUse {
  readonly host: string;
  readonly port: number;
  readonly what: string;
  /** The environment variable that moves it. */
  readonly setting: string;
}

function tryPort({ host, port }: PortUse): Promise<string | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve(undefined)));
  });
}

/** IN_USE with the port and its setting. */
export async function requirePort(use: PortUse): Promise<void> {
  const code = await tryPort(use);
  if (code === undefined) return;
  const { host, port, what, setting } = use;
  if (code === 'EADDRINUSE') {
    throw new StillhouseError('IN_USE', `expected port ${port} of ${host} to be free for ${what}, got one in use: set ${setting} to another`, { details: { port, setting } });
  }
  throw new StillhouseError('BAD_INPUT', `expected an address that this process may listen on for ${what}, got ${host}:${port} (${code}): set ${setting} to another`, { details: { port, setting } });
}

/** `host:port`, as in TEMPORAL_ADDRESS. */
export function splitAddress(address: string, setting: string): { readonly host: string; readonly port: number } {
  const match = /^\[?([^\]]+?)\]?:(\d{1,5})$/.exec(address);
  const port = Number(match?.[2]);
  if (match?.[1] === undefined || port < 1 || port > 65_535) throw new StillhouseError('BAD_INPUT', `${setting}: expected HOST:PORT, got ${JSON.stringify(address)}`);
  return { host: match[1] === 'localhost' ? '127.0.0.1' : match[1], port };
}
