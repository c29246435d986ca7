/** What tokens are as bytes of text. */

/** How a tokenizer's file writes its tokens: bytes as printable characters, or text with ▁ for a space and <0x0A> for a single byte. */
export type TokenSpelling = 'byte-level' | 'sentencepiece';

/** By the contents of tokenizer.json. */
export function tokenSpelling(tokenizerJson: object): TokenSpelling {
  return 'decoder' in tokenizerJson && JSON.stringify(tokenizerJson.decoder ?? null).includes('"ByteLevel"') ? 'byte-level' : 'sentencepiece';
}

/** The 256 bytes as the printable characters that byte-level BPE writes them with (Radford et al. 2019, gpt-2 encoder.py). */
const BYTE_OF_CHARACTER: ReadonlyMap<number, number> = new Map(
  Array.from({ length: 256 }, (_, byte) => byte)
    .sort((a, b) => Number(isPrintable(b)) - Number(isPrintable(a)) || a - b)
    .map((byte, index, all) => [isPrintable(byte) ? byte : 256 + index - all.filter(isPrintable).length, byte] as const),
);

function isPrintable(byte: number): boolean {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

/** The bytes of text that a token stands for; of a special token, whose text is not in that alphabet, its own UTF-8. */
export function tokenBytes(token: string, spelling: TokenSpelling): Uint8Array {
  if (spelling === 'sentencepiece') {
    const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(token)?.[1];
    return byte === undefined ? Buffer.from(token.replaceAll('▁', ' '), 'utf8') : Uint8Array.of(Number.parseInt(byte, 16));
  }
  const bytes = Array.from(token, (character) => BYTE_OF_CHARACTER.get(character.codePointAt(0) ?? -1));
  return bytes.every((byte) => byte !== undefined) ? Uint8Array.from(bytes) : Buffer.from(token, 'utf8');
}
