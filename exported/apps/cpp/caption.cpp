// A photo's caption by an ONNX bundle with onnxruntime's C++ API.
//
//     c++ -std=c++17 -O2 caption.cpp -I ONNXRUNTIME/include -L ONNXRUNTIME/lib -lonnxruntime -o caption
//     ./caption BUNDLE PHOTO.ppm        (any library that decodes photos to upright RGB does as well as a PPM file)
#include <onnxruntime_cxx_api.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <string>

#include "pixels.h"

static std::vector<std::string> lines_of(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

static std::vector<std::string> names_of(const Ort::Session& graph, bool inputs) {
  Ort::AllocatorWithDefaultOptions memory;
  std::vector<std::string> names;
  for (size_t i = 0; i < (inputs ? graph.GetInputCount() : graph.GetOutputCount()); ++i)
    names.emplace_back((inputs ? graph.GetInputNameAllocated(i, memory) : graph.GetOutputNameAllocated(i, memory)).get());
  return names;
}

// A number of the manifest, whose lines are `"name": number,`.
static int number_of(const std::string& path, const std::string& name) {
  for (const auto& line : lines_of(path))
    if (const auto at = line.find('"' + name + "\": "); at != std::string::npos) return std::stoi(line.substr(at + name.size() + 4));
  throw std::runtime_error(path + " has no " + name);
}

// Runs a graph; its outputs by name.
static std::map<std::string, Ort::Value> run(Ort::Session& graph, Ort::IoBinding& binding, const Ort::MemoryInfo& memory) {
  const auto names = names_of(graph, false);
  binding.ClearBoundOutputs();
  for (const auto& name : names) binding.BindOutput(name.c_str(), memory);
  graph.Run({}, binding);
  auto values = binding.GetOutputValues();
  std::map<std::string, Ort::Value> outputs;
  for (size_t i = 0; i < names.size(); ++i) outputs.emplace(names[i], std::move(values[i]));
  return outputs;
}

int main(int count, char** arguments) try {
  if (count != 3) return std::cerr << "caption BUNDLE PHOTO.ppm\n", 2;
  const std::string bundle = arguments[1];
  // Load. In an app, once.
  Ort::Env env;
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1);
  Ort::Session encoder(env, (bundle + "/encoder.onnx").c_str(), options);
  Ort::Session decoder(env, (bundle + "/decoder.onnx").c_str(), options);
  const auto words = lines_of(bundle + "/vocabulary.txt");
  const auto id = [&](const char* word) { return int32_t(std::find(words.begin(), words.end(), word) - words.begin()); };
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const auto tensor = [&](auto& values, std::vector<int64_t> shape) {
    return Ort::Value::CreateTensor(memory, values.data(), values.size(), shape.data(), shape.size());
  };
  // Pixels, (1, height, width, 3).
  std::ifstream file(arguments[2], std::ios::binary);
  std::string magic;
  int width = 0, height = 0, most = 0;
  file >> magic >> width >> height >> most;
  file.get();
  std::vector<uint8_t> rgb{std::istreambuf_iterator<char>(file), {}};
  if (magic != "P6" || most != 255 || rgb.size() != size_t(width) * height * 3)
    return std::cerr << arguments[2] << " is no PPM file (P6) of 8 bits.\n", 2;
  const int64_t size = encoder.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape()[1];
  auto pixels = resized(rgb, width, height, int(size));
  // Encode, once a photo.
  Ort::IoBinding encoding(encoder), step(decoder);
  encoding.BindInput("image", tensor(pixels, {1, size, size, 3}));
  const auto cross = run(encoder, encoding, memory);
  for (const auto& [name, value] : cross) step.BindInput(name.c_str(), value);
  // Loop: a token in, the likeliest next one out, and what the decoder keeps of the words before.
  std::map<std::string, Ort::Value> last;
  std::vector<float> nothing;
  std::vector<int32_t> token{id("[START]")}, position{0};
  const auto inputs = names_of(decoder, true);
  const int longest = number_of(bundle + "/manifest.json", "max_length") - 1;  // the last token is [END]
  for (; token[0] != id("[END]") && position[0] < longest; ++position[0]) {
    step.BindInput("tokens", tensor(token, {1}));
    step.BindInput("position", tensor(position, {}));
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (inputs[i].rfind("self_", 0) != 0) continue;
      auto shape = decoder.GetInputTypeInfo(i).GetTensorTypeAndShapeInfo().GetShape();  // (1, 1, 0, units), or as keys are
      shape[0] = 1, shape[2] = 0;
      if (last.empty()) step.BindInput(inputs[i].c_str(), tensor(nothing, shape));
      else step.BindInput(inputs[i].c_str(), last.at("next_" + inputs[i].substr(5)));
    }
    last = run(decoder, step, memory);
    const float* logits = last.at("logits").GetTensorData<float>();
    token[0] = int32_t(std::max_element(logits, logits + words.size()) - logits);
    // Words.
    if (token[0] != id("[END]")) std::cout << (position[0] ? " " : "") << words[token[0]] << std::flush;
  }
  std::cout << '\n';
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
