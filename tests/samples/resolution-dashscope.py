import os
import dashscope

dashscope.base_http_api_url = 'https://dashscope-intl.aliyuncs.com/api/v1'

messages = [
    {
        "role": "user",
        "content": [
            {"image": "https://help-static-aliyun-doc.aliyuncs.com/file-manage-files/zh-CN/20250212/earbrt/vcg_VCG211286867973_RF.jpg"},
            {"text": "What does this image show?"}
        ]
    }
]

response = dashscope.MultiModalConversation.call(
    # If environment variables are not configured, replace the following line with: api_key="sk-xxx" using your Model Studio API Key
    api_key=os.getenv('DASHSCOPE_API_KEY'),
    model='qwen-vl-max', #  Using qwen-vl-max as an example, you can change the model name as needed. Model list: https://www.alibabacloud.com/help/model-studio/getting-started/models
    messages=messages,
    vl_high_resolution_images=True
)

print("Model response:\n ",response.output.choices[0].message.content[0]["text"])

print("Token usage information: ","Total input tokens: ",response.usage["input_tokens"] , "Image tokens: " , response.usage["image_tokens"])
