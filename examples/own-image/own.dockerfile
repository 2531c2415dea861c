# The end of the row's Dockerfile. own/ is the folder that the row names as `context`.
COPY own/serve.py /opt/app/serve.py
EXPOSE 8080
CMD ["python", "/opt/app/serve.py"]
