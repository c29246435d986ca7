/** Files. https://platform.openai.com/docs/api-reference/files */
import { ApiError, newId, nowSeconds, ok, page } from './http.ts';
import type { Exchange, Reply } from './http.ts';

export interface StoredFile {
  readonly id: string;
  readonly object: 'file';
  readonly bytes: number;
  readonly created_at: number;
  readonly expires_at: number | null;
  readonly filename: string;
  readonly purpose: string;
  readonly status: 'processed';
  readonly status_details: null;
}

const UPLOAD_PURPOSES = ['assistants', 'batch', 'fine-tune', 'vision', 'user_data', 'evals'];

export class Files {
  readonly #files = new Map<string, { readonly file: StoredFile; readonly text: string }>();

  get all(): readonly StoredFile[] {
    return [...this.#files.values()].map(({ file }) => file);
  }

  add(filename: string, purpose: string, text: string, expiresAfterSeconds?: number): StoredFile {
    const created_at = nowSeconds();
    const file: StoredFile = {
      id: newId('file-'), object: 'file', bytes: Buffer.byteLength(text), created_at, expires_at: expiresAfterSeconds === undefined ? null : created_at + expiresAfterSeconds,
      filename, purpose, status: 'processed', status_details: null,
    };
    this.#files.set(file.id, { file, text });
    return file;
  }

  /** The text of a file; an error that names the parameter when there is none. */
  text(id: string, param: string): string {
    const found = this.#files.get(id);
    if (found === undefined) throw new ApiError(400, `Invalid '${param}': no file with id '${id}'.`, { param });
    return found.text;
  }

  async handle(exchange: Exchange): Promise<Reply | undefined> {
    const match = /^\/v1\/files(?:\/([^/]+))?(\/content)?$/.exec(exchange.path);
    if (match === null) return undefined;
    const [, id, content] = match;
    const { method } = exchange;
    if (id === undefined) {
      if (method === 'POST') return ok(await this.#upload(exchange));
      if (method !== 'GET') return undefined;
      const purpose = exchange.query.get('purpose');
      return page(this.all.filter((file) => purpose === null || file.purpose === purpose), exchange.query, 'desc');
    }
    const found = this.#files.get(id);
    if (found === undefined) throw new ApiError(404, `No such File object: ${id}`, { param: 'id' });
    if (method === 'GET') return content === undefined ? ok(found.file) : { status: 200, body: found.text, headers: { 'content-type': 'application/octet-stream' } };
    if (method !== 'DELETE') return undefined;
    this.#files.delete(id);
    return ok({ id, object: 'file', deleted: true });
  }

  async #upload({ body, contentType }: Exchange): Promise<StoredFile> {
    const form = await new Response(new Uint8Array(body), { headers: { 'content-type': contentType } }).formData().catch(() => {
      throw new ApiError(400, 'We could not parse the multipart form of your request.');
    });
    const file = form.get('file');
    const purpose = form.get('purpose');
    if (file === null || typeof file === 'string') throw new ApiError(400, "Missing required parameter: 'file'.", { param: 'file' });
    if (typeof purpose !== 'string' || !UPLOAD_PURPOSES.includes(purpose)) throw new ApiError(400, `Invalid 'purpose': expected one of ${UPLOAD_PURPOSES.join(', ')}.`, { param: 'purpose' });
    if (['batch', 'fine-tune'].includes(purpose) && !file.name.endsWith('.jsonl')) throw new ApiError(400, `Invalid file format for ${purpose}: must be a .jsonl file.`, { param: 'file' });
    const expires = form.get('expires_after[seconds]');
    return this.add(file.name, purpose, await file.text(), typeof expires === 'string' ? Number(expires) : undefined);
  }
}
