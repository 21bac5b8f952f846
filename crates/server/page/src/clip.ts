// Which frames of a clip are sent, and drawing them with the browser's own decoder.

export interface FramePlan {
  /** Seconds into the clip. */
  times: number[];
  /** Frames for each second, as the server is told. */
  fps: number;
}

/** What the server takes. */
export const FEWEST_FRAMES = 4;
export const MOST_FRAMES = 512;
export const LEAST_FPS = 0.1;
export const MOST_FPS = 10;

/** The frames of a clip of so many seconds: `fps` for each second, but never fewer than four and at most `most`. A long
 * clip is sampled more thinly, a short one more densely. */
export function framePlan(duration: number, fps: number, most: number): FramePlan {
  const seconds = Number.isFinite(duration) && duration > 0 ? duration : 0;
  const limit = Math.min(Math.max(Math.floor(most), FEWEST_FRAMES), MOST_FRAMES);
  const wanted = Math.round(seconds * clamp(fps, LEAST_FPS, MOST_FPS));
  const count = clamp(wanted, FEWEST_FRAMES, limit);
  const rate = seconds > 0 ? clamp(count / seconds, LEAST_FPS, MOST_FPS) : MOST_FPS;
  // At a bound of the rate the frames cover less, or repeat the end, but the times told are the times taken.
  const last = Math.max(0, seconds - 0.001);
  const times = Array.from({ length: count }, (_, index) => Math.min(index / rate, last));
  return { times, fps: Math.round(rate * 1000) / 1000 };
}

/** A time as answers write it, in seconds: `00:01:02.50`, `1:02`, `62.5`, `"62.5 seconds"`. */
export function seconds(value: unknown): number | null {
  if (typeof value === "number") return Number.isFinite(value) && value >= 0 ? value : null;
  if (typeof value !== "string") return null;
  const match = /^\s*(?:(?:(\d{1,3}):)?(\d{1,3}):)?(\d{1,7}(?:\.\d{1,6})?)\s*(?:s|sec|seconds?)?\s*$/i.exec(value);
  if (!match) return null;
  return Number(match[1] ?? 0) * 3600 + Number(match[2] ?? 0) * 60 + Number(match[3]);
}

function clamp(value: number, least: number, most: number): number {
  return Math.min(Math.max(value, least), most);
}

/** Longest side of a frame. More is only more to send: a clip's frames are seen small. */
const LONGEST_SIDE = 768;
const PATIENCE_MS = 20_000;

export interface Frames {
  frames: string[];
  fps: number;
  width: number;
  height: number;
}

/** The frames of a file as data URIs. Nothing of the file itself is sent. */
export async function sampleFrames(file: Blob, fps: number, most: number): Promise<Frames> {
  const video = document.createElement("video");
  const address = URL.createObjectURL(file);
  try {
    video.muted = true;
    video.preload = "auto";
    video.src = address;
    await happens(video, "loadeddata");
    const { width, height } = fitted(video.videoWidth, video.videoHeight);
    const plan = framePlan(await length(video), fps, most);
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d");
    if (!context) throw new Error("this browser can't draw frames");
    const frames: string[] = [];
    for (const time of plan.times) {
      if (Math.abs(video.currentTime - time) > 1e-4) {
        const sought = happens(video, "seeked");
        const presented = presents(video);
        video.currentTime = time;
        await sought;
        await Promise.race([presented, new Promise((resolve) => setTimeout(resolve, MOMENT_MS))]);
      }
      context.drawImage(video, 0, 0, width, height);
      frames.push(canvas.toDataURL("image/jpeg", 0.9));
    }
    return { frames, fps: plan.fps, width, height };
  } finally {
    video.removeAttribute("src");
    video.load();
    URL.revokeObjectURL(address);
  }
}

function fitted(width: number, height: number): { width: number; height: number } {
  const factor = Math.min(1, LONGEST_SIDE / Math.max(width, height, 1));
  return { width: Math.max(1, Math.round(width * factor)), height: Math.max(1, Math.round(height * factor)) };
}

/** Clips that a browser has recorded don't say how long they are until their end was sought. */
async function length(video: HTMLVideoElement): Promise<number> {
  if (Number.isFinite(video.duration)) return video.duration;
  const known = happens(video, "seeked");
  video.currentTime = 1e7;
  await known;
  return Number.isFinite(video.duration) ? video.duration : video.currentTime;
}

/** A busy browser may have sought before it has the new frame to draw. Not all tell when they have; then a moment must
 * do. */
const MOMENT_MS = 200;

function presents(video: HTMLVideoElement): Promise<void> {
  return new Promise((resolve) => {
    if ("requestVideoFrameCallback" in video) video.requestVideoFrameCallback(() => resolve());
  });
}

function happens(video: HTMLVideoElement, event: "loadeddata" | "seeked"): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = (finish: () => void) => () => {
      clearTimeout(timer);
      video.removeEventListener(event, good);
      video.removeEventListener("error", bad);
      finish();
    };
    const good = end(resolve);
    const bad = end(() => reject(new Error("this browser can't play the clip")));
    const timer = setTimeout(end(() => reject(new Error("the clip did not load in time"))), PATIENCE_MS);
    video.addEventListener(event, good);
    video.addEventListener("error", bad);
  });
}
