// Files that the user drops, pastes or chooses, as attachments.

import { sampleFrames } from "./clip.ts";
import type { Attachment } from "./request.ts";

/** What the server reads. All else that the browser can show is sent as PNG. */
const READ_BY_SERVER = ["image/png", "image/jpeg", "image/webp", "image/bmp", "image/tiff"];
const LARGEST_FILE = 512 << 20;

export interface ClipSettings {
  fps: number;
  most: number;
}

let next = 0;

export function newId(): string {
  next += 1;
  return `i${next}`;
}

/** One file as an attachment, or an error whose message says what is wrong with it. */
export async function attach(file: File, clip: ClipSettings): Promise<Attachment> {
  if (file.size > LARGEST_FILE) throw new Error(`${file.name} is larger than 512 MiB.`);
  if (file.type.startsWith("video/")) {
    const { frames, ...rest } = await sampleFrames(file, clip.fps, clip.most).catch((error: Error) => {
      throw new Error(`${file.name}: ${error.message}.`);
    });
    return { id: newId(), kind: "clip", name: file.name, data: frames, isFile: false, isShown: true, ...rest };
  }
  if (!file.type.startsWith("image/")) throw new Error(`${file.name} is neither a picture nor a clip.`);
  const bitmap = await createImageBitmap(file).catch(() => null);
  const size = { width: bitmap?.width ?? 0, height: bitmap?.height ?? 0 };
  const shared = { id: newId(), kind: "image" as const, name: file.name, isShown: bitmap !== null, ...size };
  if (bitmap && !READ_BY_SERVER.includes(file.type)) return { ...shared, data: [asPng(bitmap)], isFile: false };
  // What the browser can't show goes to the server as it is: it says best whether it can read it.
  return { ...shared, data: [await dataUri(file)], isFile: true };
}

function asPng(bitmap: ImageBitmap): string {
  const canvas = document.createElement("canvas");
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  canvas.getContext("2d")?.drawImage(bitmap, 0, 0);
  return canvas.toDataURL("image/png");
}

function dataUri(file: Blob): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(new Error("The file can't be read."));
    reader.readAsDataURL(file);
  });
}

/** A built-in example. */
export interface Sample {
  title: string;
  prompt: string;
  system?: string;
  files: string[];
  /** The model that has not learned this, and answers nonsense. */
  beyond?: string;
  /** The files are the frames of one clip. */
  fps?: number;
}

/** The pictures of an example. */
export async function sampleAttachments(sample: Sample): Promise<Attachment[]> {
  const files = await Promise.all(
    sample.files.map(async (name) => {
      const answer = await fetch(`page/samples/${name}`);
      if (!answer.ok) throw new Error(`The example's picture ${name} is not there.`);
      const blob = await answer.blob();
      return new File([blob], name.split("/").pop() ?? name, { type: blob.type });
    }),
  );
  const pictures = await Promise.all(files.map((file) => attach(file, { fps: 2, most: 64 })));
  const first = pictures[0];
  // The files of an example are nowhere on the user's disk.
  if (sample.fps === undefined || !first) return pictures.map((picture) => ({ ...picture, isFile: false }));
  const data = pictures.flatMap((picture) => picture.data);
  return [{ ...first, kind: "clip", name: sample.title, data, fps: sample.fps, isFile: false }];
}
