// The prompts that the hosted service's guide recommends, for the user's own pictures.

export interface Recipe {
  title: string;
  prompt: string;
  system?: string;
}

const DOCUMENT_PARSER =
  "You are an AI specialized in recognizing and extracting text from images. Your mission is to analyze the image " +
  "document and generate the result in QwenVL Document Parser HTML format using specified tags while maintaining user " +
  "privacy and data integrity.";

export const RECIPES: Recipe[] = [
  { title: "Describe", prompt: "Describe this image." },
  {
    title: "Boxes as JSON",
    prompt: "Detect all objects in the image and output their bbox coordinates in JSON format, do not output ```json```.",
  },
  {
    title: "Points as XML",
    prompt: "Locate all objects in the image in point form, output their point coordinates in XML format, do not output ```xml```.",
  },
  { title: "Read the text", prompt: "Read all the text in the image." },
  {
    title: "Fields of a receipt",
    prompt: "Extract the following from the image: ['Shop', 'Date', 'Total']. Please output in JSON format, do not output ```json```.",
  },
  { title: "Parse a document", prompt: "QwenVL HTML", system: DOCUMENT_PARSER },
  { title: "Solve step by step", prompt: "Please solve this problem step by step, showing your thinking process." },
  {
    title: "Events of a clip",
    prompt:
      "Please describe the series of events in the video, output the start time (start_time), end time (end_time), and " +
      "event (event) in JSON format, do not output ```json```.",
  },
  { title: "Compare", prompt: "What is different between these images?" },
];
