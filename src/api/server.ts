/** Listens and closes; everything else is src/api/app.ts. */
import type { FastifyInstance } from 'fastify';
import { StillhouseError } from '../contracts/errors.ts';

export interface ListeningServer {
  readonly url: string;
  close(): Promise<void>;
}

/** IN_USE names the port and the setting that changes it. */
export async function listen(app: FastifyInstance, address: { readonly host: string; readonly port: number }): Promise<ListeningServer> {
  try {
    const url = await app.listen({ host: address.host, port: address.port });
    return { url, close: () => app.close() };
  } catch (error) {
    await app.close();
    const { code } = error as NodeJS.ErrnoException;
    const place = `${address.host}:${address.port}`;
    if (code === 'EADDRINUSE') {
      throw new StillhouseError('IN_USE', `expected port ${address.port} of ${address.host} to be free for the REST API, got one in use: set STILLHOUSE_API_PORT to another`, { cause: error, details: { port: address.port, setting: 'STILLHOUSE_API_PORT' } });
    }
    if (code === 'EACCES' || code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND') {
      throw new StillhouseError('BAD_INPUT', `expected an address that this process may listen on for the REST API, got ${place} (${code}): set STILLHOUSE_API_HOST and STILLHOUSE_API_PORT`, { cause: error });
    }
    throw error;
  }
}
