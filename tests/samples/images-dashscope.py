import os
import dashscope

dashscope.base_http_api_url = 'https://dashscope-intl.aliyuncs.com/api/v1'

messages = [
    {
	"role": "system",
	"content": [{"text": "You are a helpful assistant."}]},
    {
        "role": "user",
        "content": [
            # First image URL.
            {"image": "https://dashscope.oss-cn-beijing.aliyuncs.com/images/dog_and_girl.jpeg"},
            # Second image URL
            {"image": "https://dashscope.oss-cn-beijing.aliyuncs.com/images/tiger.png"},
            # Third image URL
            {"image": "https://dashscope.oss-cn-beijing.aliyuncs.com/images/rabbit.png"},
            {"text": "What do these images depict?"}
        ]
    }
]

response = dashscope.MultiModalConversation.call(
    # If environment variables are not configured, replace the line below with: api_key="sk-xxx" using your Model Studio API Key
    api_key=os.getenv('DASHSCOPE_API_KEY'),
    model='qwen-vl-max', # Using qwen-vl-max as an example, you can change the model name as needed. Model list: https://www.alibabacloud.com/help/zh/model-studio/getting-started/models
    messages=messages
)

print(response.output.choices[0].message.content[0]["text"])
